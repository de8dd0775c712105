package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandFirst moves the command to the front of the arguments, also if a shell asks for completions.
func commandFirst(root *cobra.Command, arguments []string) []string {
	requests := []string{cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}
	if last := len(arguments) - 1; last > 0 && slices.Contains(requests, arguments[0]) {
		words := moveCommand(root, arguments[1:last], true)
		return slices.Concat(arguments[:1], words, arguments[last:])
	}
	return moveCommand(root, arguments, false)
}

// moveCommand moves the command to the front. The command is the first argument that is neither a flag nor the
// value of a flag. If that argument is not a command, run is inserted. completing is true if a shell asks for
// completions.
func moveCommand(root *cobra.Command, arguments []string, completing bool) []string {
	if len(arguments) > 0 && arguments[0] == "help" {
		return helpFor(root, arguments[1:])
	}
	if len(arguments) > 1 && arguments[0] == "session" && arguments[1] == "help" {
		return helpFor(root, slices.Concat(arguments[:1], arguments[2:]))
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
		known, valueFollows := lookupFlags(word, root.PersistentFlags())
		if !known || !allGlobal {
			allGlobal = false
			known, valueFollows = lookupFlags(word, root.PersistentFlags(), run.Flags())
		}
		if !known {
			return append([]string{"run"}, arguments...)
		}
		if valueFollows {
			position++
		}
	}
	// While a shell completes the first word, it may still become a command.
	if allGlobal && completing {
		return arguments
	}
	return append([]string{"run"}, arguments...)
}

// helpFor returns the arguments that print the help of the command that is named. A name that is not a command remains
// without --help, so that the command before it reports the name.
func helpFor(root *cobra.Command, words []string) []string {
	end := slices.IndexFunc(words, func(word string) bool { return word == "help" || strings.HasPrefix(word, "-") })
	if end >= 0 {
		words = words[:end]
	}
	command := root
	for _, word := range words {
		if !command.HasSubCommands() {
			break
		}
		if command = find(command, word); command == nil {
			return words
		}
	}
	return append(slices.Clone(words), "--help")
}

func find(parent *cobra.Command, name string) *cobra.Command {
	for _, command := range parent.Commands() {
		if command.Name() == name {
			return command
		}
	}
	return nil
}

// lookupFlags reports whether the word consists of these flags, and whether the next argument is their value.
func lookupFlags(word string, sets ...*pflag.FlagSet) (known, valueFollows bool) {
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
		flag := lookupShort(word[position:position+1], sets)
		if flag == nil {
			return false, false
		}
		if flag.NoOptDefVal == "" {
			return true, position == len(word)-1
		}
	}
	return true, false
}

// asksForHelp reports whether one of the arguments is -h or --help, and all flags are known. Help comes before errors
// about values, as in the Python program.
func asksForHelp(arguments []string, flags *pflag.FlagSet) bool {
	found := false
	for position := 0; position < len(arguments) && arguments[position] != "--"; position++ {
		word := arguments[position]
		if word == "-" || !strings.HasPrefix(word, "-") {
			continue
		}
		known, valueFollows := lookupFlags(word, flags)
		if !known {
			return false
		}
		found = found || word == "-h" || word == "--help"
		if valueFollows {
			position++
		}
	}
	return found
}

func lookupShort(letter string, sets []*pflag.FlagSet) *pflag.Flag {
	for _, set := range sets {
		if flag := set.ShorthandLookup(letter); flag != nil {
			return flag
		}
	}
	return nil
}
