"""Runs one model on several targets and says where and by how much they differ."""
