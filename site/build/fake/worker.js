// The fake engine has no worker.
