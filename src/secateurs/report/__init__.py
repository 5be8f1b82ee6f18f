"""From tidy tables to figures to one self-contained HTML page."""
