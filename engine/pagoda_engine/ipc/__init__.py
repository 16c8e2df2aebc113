"""How the HTTP process and the engine process talk: typed messages, as msgpack frames, over one unix socket."""
