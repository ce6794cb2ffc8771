ARG x=1
FROM a${x:b}
