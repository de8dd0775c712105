// Package pyexec is the Go client for python-executor: it runs Python code in isolated sandboxes.
//
//	client, err := pyexec.New("http://localhost:8080")
//	result, err := client.Run(ctx, pyexec.Text("print(6 * 7)"), pyexec.WithTimeout(10*time.Second))
//	fmt.Print(result.Stdout)
//
// A program that fails is a [Result], not an error. Errors mean that the server rejected the request ([Error]),
// that it cannot be reached ([ConnectionError]), or that an argument is invalid ([ArgumentError]).
//
// Cancelling the context of [Client.Run] or [Client.Stream] closes the connection, and the server kills the
// execution. With an idempotency key the execution continues.
//
// [Client.OpenSession] opens an interpreter that keeps its variables between calls:
//
//	session, err := client.OpenSession(ctx)
//	defer session.Close(ctx)
//	result, err := session.Eval(ctx, "x = 6; x * 7")
//
// Only the context limits how long a call takes. If the server sends neither data nor a keep-alive for too long,
// the connection counts as lost.
package pyexec
