"""The engine process: what runs in it, how the HTTP process starts and watches it, and how requests get in and out."""
