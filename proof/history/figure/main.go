// Command figure draws a history that a soak has written:
//
//	go run ./history/figure ../soak-1/history-1.json > figure.svg
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/redis-kit/redlock/proof/history"
)

func main() {
	if err := draw(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func draw() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: figure HISTORY.json > FIGURE.svg")
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var h history.History
	if err := json.Unmarshal(text, &h); err != nil {
		return fmt.Errorf("%s: %w", os.Args[1], err)
	}
	return h.WriteSVG(os.Stdout)
}
