FROM a
RUN ["a\tb", "\u00e9\"", \
  "c"]
