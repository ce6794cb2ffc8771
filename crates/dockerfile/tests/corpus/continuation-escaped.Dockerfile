FROM a
RUN one \\
RUN two \ 	
  three
