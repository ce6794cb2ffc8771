FROM a
COPY <<E /x
one
two
E
RUN b \
  c
