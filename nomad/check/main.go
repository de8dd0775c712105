// Command check reads a job file as Nomad itself does, and prints what it says as JSON: the job, with every
// variable at its default or as -var gives it, and the variables. What Nomad would refuse it refuses.
//
//	go run . [-var NAME=VALUE]... FILE
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
)

type report struct {
	Job       *api.Job
	Variables []variable
	Formatted bool // as `nomad fmt` would leave it
}

// variable is one's block: its attributes, as they are written.
type variable struct {
	Name       string
	Attributes map[string]string
}

type list []string

func (l *list) String() string { return fmt.Sprint(*l) }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	var given list
	flag.Var(&given, "var", "a variable, as NAME=VALUE")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	found, err := check(flag.Arg(0), given)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(path string, given list) (*report, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{
		Path: path, Body: body, ArgVars: given, Strict: true,
	})
	if err != nil {
		return nil, err
	}
	variables, err := variablesOf(path, body)
	if err != nil {
		return nil, err
	}
	formatted := bytes.Equal(body, hclwrite.Format(body))
	return &report{Job: job, Variables: variables, Formatted: formatted}, nil
}

func variablesOf(path string, body []byte) ([]variable, error) {
	file, diagnostics := hclsyntax.ParseConfig(body, path, hcl.InitialPos)
	if diagnostics.HasErrors() {
		return nil, diagnostics
	}
	var found []variable
	for _, block := range file.Body.(*hclsyntax.Body).Blocks {
		if block.Type != "variable" {
			continue
		}
		attributes := map[string]string{}
		for name, attribute := range block.Body.Attributes {
			attributes[name] = string(attribute.Expr.Range().SliceBytes(body))
		}
		found = append(found, variable{Name: block.Labels[0], Attributes: attributes})
	}
	return found, nil
}
