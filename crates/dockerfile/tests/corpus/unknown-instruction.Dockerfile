FROM a
CPOY b c
