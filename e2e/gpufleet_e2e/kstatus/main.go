// Command kstatus reads a Kubernetes list in JSON from standard input and prints the status of each, as kstatus
// computes it: one JSON object per line with the fields status and message.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	// Integers must not become floating point numbers, in which kstatus finds no generation.
	var document map[string]any
	if err := utiljson.Unmarshal(text, &document); err != nil {
		return err
	}
	items, _ := document["items"].([]any)
	out := json.NewEncoder(os.Stdout)
	for _, item := range items {
		object, _ := item.(map[string]any)
		found, err := status.Compute(&unstructured.Unstructured{Object: object})
		if err != nil {
			return err
		}
		if err := out.Encode(map[string]string{"status": string(found.Status), "message": found.Message}); err != nil {
			return err
		}
	}
	return nil
}
