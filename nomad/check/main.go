// Command check does with a job file what a Nomad server does with it at `nomad job run`: it parses the file, sets the
// defaults and validates the job. It prints the job, its variables and Nomad's warnings as JSON. Variables have their
// default, or the value that -var sets. If Nomad would reject the file, check prints the error and exits with 1.
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
	Warnings  string // Nomad accepts the job, but prints these
	Formatted bool   // `nomad fmt` would change nothing
}

// variable is a variable block, with the source text of its attributes.
type variable struct {
	Name       string
	Attributes map[string]string
}

// stringList is a flag that can be given more than once.
type stringList []string

func (l *stringList) String() string { return fmt.Sprint(*l) }

func (l *stringList) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	var values stringList
	flag.Var(&values, "var", "set a variable, as `NAME=VALUE` (repeatable)")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	checked, err := check(flag.Arg(0), values)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(checked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(path string, values stringList) (*report, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{
		Path: path, Body: body, ArgVars: values, Strict: true,
	})
	if err != nil {
		return nil, err
	}
	job.Canonicalize()
	registered, err := registeredJob(job)
	if err != nil {
		return nil, err
	}
	if err := registered.Validate(); err != nil {
		return nil, err
	}
	variables, err := variablesOf(path, body)
	if err != nil {
		return nil, err
	}
	result := &report{Job: job, Variables: variables, Formatted: bytes.Equal(body, hclwrite.Format(body))}
	if warnings := registered.Warnings(); warnings != nil {
		result.Warnings = warnings.Error()
	}
	return result, nil
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
