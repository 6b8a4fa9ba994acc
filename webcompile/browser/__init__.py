"""The web engine, driven from Python: a headless browser with the real `runtime-web` and a real artifact."""
