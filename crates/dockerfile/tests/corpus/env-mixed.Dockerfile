FROM a
ENV b=1 c
