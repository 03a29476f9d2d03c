"""The tables that ship with helixlab; README.md beside this file describes them."""
