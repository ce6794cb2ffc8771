ARG b
FROM a
RUN --mount=from=$b,target=/x true
