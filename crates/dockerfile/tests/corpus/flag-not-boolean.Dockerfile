FROM a
COPY --link=maybe b c
