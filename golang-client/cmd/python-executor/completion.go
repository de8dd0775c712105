package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
)

// bashCompletion asks this program what may come next. Unlike cobra's own script it needs no package
// bash-completion, which many machines lack.
const bashCompletion = `_python_executor() {
    local line directive=0
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :*) directive=${line#:} ;;
            "") ;;
            "$2"*) COMPREPLY+=("$line") ;;
        esac
    done < <("$1" __completeNoDesc "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if ((directive & 4)); then
        compopt +o default 2>/dev/null
    fi
}
complete -o default -F _python_executor python-executor
`

// asCommand puts run in front of arguments that name no command, also where a shell asks how they may go on.
func asCommand(root *cobra.Command, arguments []string) []string {
	asked := len(arguments) > 0 &&
		slices.Contains([]string{cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}, arguments[0])
	switch {
	case asked && len(arguments) > 1 && !isOurs(root, arguments[1:len(arguments)-1], true):
		return append([]string{arguments[0], "run"}, arguments[1:]...)
	case asked || isOurs(root, arguments, false):
		return arguments
	}
	return append([]string{"run"}, arguments...)
}

func (p *program) completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:       "completion [bash|zsh|fish]",
		Short:     "Print the script that makes a shell complete our commands and flags.",
		Args:      exactly("SHELL"),
		ValidArgs: shells,
		RunE: func(command *cobra.Command, arguments []string) error {
			root := command.Root()
			switch arguments[0] {
			case "bash":
				_, err := fmt.Print(bashCompletion)
				return err
			case "zsh":
				return root.GenZshCompletion(os.Stdout)
			case "fish":
				return root.GenFishCompletion(os.Stdout, true)
			}
			return wrong(command, "'%s' is none of bash, zsh, fish", arguments[0])
		},
	}
}
