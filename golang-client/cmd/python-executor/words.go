package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// asCommand puts the command's name in front, also where a shell asks how the arguments may go on.
func asCommand(root *cobra.Command, arguments []string) []string {
	asking := []string{cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}
	if last := len(arguments) - 1; last > 0 && slices.Contains(asking, arguments[0]) {
		words := withCommandFirst(root, arguments[1:last], true)
		return slices.Concat(arguments[:1], words, arguments[last:])
	}
	return withCommandFirst(root, arguments, false)
}

// withCommandFirst gives the same with the command's name in front: the first word that is no flag and no
// flag's value, or run where that names no command.
func withCommandFirst(root *cobra.Command, arguments []string, asked bool) []string {
	if len(arguments) > 0 && arguments[0] == "help" {
		if len(arguments) > 1 && find(root, arguments[1]) != nil {
			return []string{arguments[1], "--help"}
		}
		return []string{"--help"}
	}
	run := find(root, "run")
	allGlobal := true
	for position := 0; position < len(arguments); position++ {
		word := arguments[position]
		if allGlobal && (word == "-h" || word == "--help" || word == "--version") {
			return arguments
		}
		if word == "-" || !strings.HasPrefix(word, "-") {
			if find(root, word) != nil {
				return slices.Concat([]string{word}, arguments[:position], arguments[position+1:])
			}
			return append([]string{"run"}, arguments...)
		}
		known, goesOn := ofFlags(word, root.PersistentFlags())
		if !known || !allGlobal {
			allGlobal = false
			known, goesOn = ofFlags(word, root.PersistentFlags(), run.Flags())
		}
		if !known {
			return append([]string{"run"}, arguments...)
		}
		if goesOn {
			position++
		}
	}
	// A shell that asks how a first word may go on names no command yet, nor means run.
	if allGlobal && asked {
		return arguments
	}
	return append([]string{"run"}, arguments...)
}

func find(root *cobra.Command, name string) *cobra.Command {
	for _, command := range root.Commands() {
		if command.Name() == name {
			return command
		}
	}
	return nil
}

// ofFlags says whether the word is one of these flags, and whether its value is the next word.
func ofFlags(word string, sets ...*pflag.FlagSet) (known, goesOn bool) {
	if long, isLong := strings.CutPrefix(word, "--"); isLong {
		name, _, hasValue := strings.Cut(long, "=")
		for _, set := range sets {
			if flag := set.Lookup(name); flag != nil {
				return true, !hasValue && flag.NoOptDefVal == ""
			}
		}
		return false, false
	}
	for position := 1; position < len(word); position++ { // -qv, -eNAME=value
		flag := short(word[position:position+1], sets)
		if flag == nil {
			return false, false
		}
		if flag.NoOptDefVal == "" {
			return true, position == len(word)-1
		}
	}
	return true, false
}

func short(letter string, sets []*pflag.FlagSet) *pflag.Flag {
	for _, set := range sets {
		if flag := set.ShorthandLookup(letter); flag != nil {
			return flag
		}
	}
	return nil
}
