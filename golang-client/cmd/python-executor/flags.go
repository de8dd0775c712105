package main

import (
	"errors"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pyexec "github.com/python-executor/golang-client"
)

// flags are those that every command takes, before its name or after it.
type flags struct {
	server, token, image              string
	timeout                           positiveFloat
	memory, disk, cpu                 positiveInt
	network, detached, quiet, verbose bool
}

// howToRun are the flags that mean nothing to a command that runs nothing.
var howToRun = []string{"timeout", "memory", "disk", "cpu", "network", "image", "async"}

func (f *flags) addTo(set *pflag.FlagSet) {
	set.SortFlags = false
	set.StringVar(&f.server, "server", "", "The server's `URL`. [env: PYEXEC_SERVER, default: http://localhost:8080]")
	set.StringVar(&f.token, "token", "", "The access `TOKEN`. [env: PYEXEC_TOKEN]")
	set.Var(&f.timeout, "timeout", "End the run after `N` seconds.")
	set.Var(&f.memory, "memory", "Memory limit in MB.")
	set.Var(&f.disk, "disk", "Disk limit in MB.")
	set.Var(&f.cpu, "cpu", "CPU shares (1024 is one's fair part).")
	set.BoolVar(&f.network, "network", false, "Let the program reach the network.")
	set.StringVar(&f.image, "image", "", "The Docker image `NAME` to run in.")
	set.BoolVar(&f.detached, "async", false, "Submit, print the id, and do not wait.")
	set.BoolVarP(&f.quiet, "quiet", "q", false, "No notes, only output and errors.")
	set.BoolVarP(&f.verbose, "verbose", "v", false, "Tell each step.")
}

// client is a client of the server that is named.
func (f *flags) client(command *cobra.Command) (*pyexec.Client, error) {
	server := firstOf(f.server, os.Getenv("PYEXEC_SERVER"), pyexec.DefaultURL)
	token := firstOf(f.token, os.Getenv("PYEXEC_TOKEN"))
	client, err := pyexec.New(server, pyexec.WithToken(token))
	var argument *pyexec.ArgumentError
	if errors.As(err, &argument) {
		return nil, wrong(command, "%s", argument)
	}
	return client, err
}

// options are the part of a request that these flags hold.
func (f *flags) options() []pyexec.Option {
	var options []pyexec.Option
	if f.timeout > 0 {
		seconds := min(float64(f.timeout), math.MaxInt64/float64(2*time.Second))
		options = append(options, pyexec.WithTimeout(time.Duration(seconds*float64(time.Second))))
	}
	if f.memory > 0 {
		options = append(options, pyexec.WithMemoryMB(int(f.memory)))
	}
	if f.disk > 0 {
		options = append(options, pyexec.WithDiskMB(int(f.disk)))
	}
	if f.cpu > 0 {
		options = append(options, pyexec.WithCPUShares(int(f.cpu)))
	}
	if f.network {
		options = append(options, pyexec.WithNetwork(true))
	}
	if f.image != "" {
		options = append(options, pyexec.WithImage(f.image))
	}
	return options
}

func firstOf(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}

// positiveInt is a whole number of at least 1; 0 is not given.
type positiveInt int

func (p *positiveInt) Set(text string) error {
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 {
		return errors.New("it must be a whole number of at least 1")
	}
	*p = positiveInt(number)
	return nil
}

func (p *positiveInt) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

func (p *positiveInt) Type() string { return "N" }

// positiveFloat is a number above 0; 0 is not given.
type positiveFloat float64

func (p *positiveFloat) Set(text string) error {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || !(number > 0) {
		return errors.New("it must be a number above 0")
	}
	*p = positiveFloat(number)
	return nil
}

func (p *positiveFloat) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*p), 'g', -1, 64)
}

func (p *positiveFloat) Type() string { return "N" }
