// Package render turns answers of the API into text for people: tables, one-screen views, and the time
// line of a run as a Gantt chart.
//
// Every function is pure: it takes messages, a width in columns (zero: no limit) and the present time,
// and returns text. It never writes, never asks the terminal and never calls the API. Nothing in its
// output is API: programs read JSON. internal/cli calls it.
package render
