# escape=`

FROM a
COPY testfile.txt c:\
ENV x=`$y z="`"q`"" w='`'
RUN a `
    # between
    b
