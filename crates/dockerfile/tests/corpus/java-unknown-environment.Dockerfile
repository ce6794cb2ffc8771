FROM eclipse-temurin:21
ENV PATH=$JAVA_HOME/bin:$PATH
ARG JAR=app.jar
COPY target/$JAR /srv/${JAR##*/}
ENTRYPOINT ["java", "-jar", "/srv/app.jar"]
