/* A page that greets: a whole web server in one file, for an image with nothing else in it. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const int PORT = 8000;

static void stop(int number)
{
    (void)number;
    _exit(0);
}

static void answer(int client, const char *greeting)
{
    char request[4096], page[256], host[128] = "";
    if (read(client, request, sizeof request) <= 0)
        return;
    gethostname(host, sizeof host - 1);
    int length = snprintf(page, sizeof page, "%s from %s\n", greeting, host);
    dprintf(client, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", length, page);
}

int main(void)
{
    const char *greeting = getenv("GREETING") ? getenv("GREETING") : "Hello";
    /* Process 1 has no signal's default. */
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0) {
        perror("cannot listen");
        return 1;
    }
    printf("listening on port %d\n", PORT);
    fflush(stdout);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        answer(client, greeting);
        close(client);
    }
}
