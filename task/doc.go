// Package task holds the GLUE tasks and user-given ones: reading their data sets,
// laying batches out without padding, and scoring predictions.
//
// [Lookup] names a task, [Load] reads its data from GLUE's TSV folders, the
// Hub's Parquet files, or CSV, TSV and JSONL files, [Encode] tokenizes it once,
// [Encoded.Fill] lays a batch out, and [Score] gives the task's metrics.
package task
