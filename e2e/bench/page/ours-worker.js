// The package's own worker, behind the counters.
import "./counters.js";
import "./webcompile/worker.js";
