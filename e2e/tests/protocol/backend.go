// A server that prints method, target and length of the body of each request
// that it has read whole, on the port of its argument.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			fmt.Println(r.Method, r.RequestURI, len(body))
		}
		io.WriteString(w, "ok")
	}
	if err := http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(handler)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
