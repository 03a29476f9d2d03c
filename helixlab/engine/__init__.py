"""The event engine: the compiled loop, and everything it knows, as tables.

`helixlab.engine.state` describes the tables, `helixlab.engine.loop` is the loop itself.
"""
