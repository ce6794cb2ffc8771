FROM a
CMD ['a', 'b']
ENTRYPOINT ["a"] b
RUN [ -f x ] && true
