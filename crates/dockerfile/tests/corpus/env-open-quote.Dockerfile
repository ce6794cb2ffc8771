FROM a
ENV b="c d
RUN e
