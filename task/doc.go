// Package task holds the GLUE tasks, generation tasks and user-given ones: reading their data sets,
// laying batches out without padding, and scoring predictions.
//
// [Lookup] names a task, [Load] reads its data from GLUE's TSV folders, the
// Hub's Parquet files, CSV, TSV and JSONL files, and WebNLG's and E2E's own forms
// ([Entries] gathers the references of a prompt); [Encode] tokenizes it once,
// [Encoded.Fill] lays a batch out, and [Score] gives the task's metrics.
package task
