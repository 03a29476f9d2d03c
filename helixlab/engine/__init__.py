"""The event engine: the compiled loop and the tables with its whole state.

Start reading at `helixlab.engine.loop`, which is the loop itself, and `helixlab.engine.state`, which lists
the tables. `helixlab.engine.constants` names the numbers in them.
"""
