"""The regime, lazy to rich: centred and scaled outputs, linearised networks, the dial's faces."""
