package main

import (
	"fmt"
	"os"

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
