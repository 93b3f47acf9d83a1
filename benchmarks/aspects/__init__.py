"""How well aspects, diseases and sides are read on phantoms, and how well the scores say so."""
