FROM a
RUN one \

  two
COPY a \
   
  b
