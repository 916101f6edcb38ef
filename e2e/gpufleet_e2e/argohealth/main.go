// Command argohealth evaluates a health script as Argo CD does (util/lua of v3.5): it reads a JSON object with the fields
// script and items from standard input, and prints one JSON object per item with the fields status and message.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
)

// The statuses that Argo CD accepts.
var valid = map[string]bool{
	"Progressing": true, "Healthy": true, "Suspended": true, "Degraded": true, "Missing": true, "Unknown": true,
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var input struct {
		Script string
		Items  []map[string]any
	}
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, item := range input.Items {
		found, err := health(input.Script, item)
		if err != nil {
			return err
		}
		if err := out.Encode(found); err != nil {
			return err
		}
	}
	return nil
}

func health(script string, object map[string]any) (map[string]string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	// Argo CD opens only these, and a part of the library os.
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		call := lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	state.SetGlobal("obj", luajson.DecodeValue(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	text, err := luajson.Encode(state.Get(-1))
	if err != nil {
		return nil, err
	}
	var found map[string]string
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("the script returned %s: %w", text, err)
	}
	if !valid[found["status"]] {
		return nil, fmt.Errorf("the script returned the status %q", found["status"])
	}
	return found, nil
}
