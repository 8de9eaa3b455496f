// Command h2spec runs the conformance suite of HTTP/2 against a server that
// speaks it without TLS, and prints how many cases passed, were skipped and
// failed.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/summerwind/h2spec"
	"github.com/summerwind/h2spec/config"
)

func main() {
	port := flag.Int("p", 80, "port on the loopback interface")
	report := flag.String("j", "", "file for the report in the format of JUnit")
	flag.Parse()
	_, err := h2spec.Run(&config.Config{
		Host:         "127.0.0.1",
		Port:         *port,
		Path:         "/",
		// What a busy machine does late is no mistake.
		Timeout:      20 * time.Second,
		MaxHeaderLen: 4000,
		JUnitReport:  *report,
		Sections:     flag.Args(),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
