  FROM   a   AS   b  
	 RUN 	 c  d	

   COPY   e	f   g
