FROM a
RUN x=$((1<<2)) && cat a<<b "<<c" <<<d
RUN echo it's <<e
CMD ["<<f"]
