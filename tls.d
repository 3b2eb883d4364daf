tls.o: tls.c forward.h tls.h
forward.h:
tls.h:
