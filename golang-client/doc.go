// Package pyexec is a client of python-executor: it runs Python code in throw-away sandboxes.
//
//	client, err := pyexec.New("http://localhost:8080")
//	result, err := client.Run(ctx, pyexec.Text("print(6 * 7)"), pyexec.WithTimeout(10*time.Second))
//	fmt.Print(result.Stdout)
//
// A run that fails is a [Result], not an error: errors are for what the server refuses ([Error]), for a server
// that cannot be reached ([ConnectionError]), and for arguments that make no sense ([ArgumentError]).
//
// Ending the context of [Client.Run] or [Client.Stream] hangs up, and that ends the run, unless an
// idempotency key was given. Nothing here has a time limit of its own but the context: a connection counts as
// broken only after it has been silent for longer than the server ever is.
package pyexec
