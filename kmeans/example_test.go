package kmeans_test

import (
	"fmt"
	"log"

	"mlpfusion/kmeans"
)

// Five rows of two columns into two clusters.
func ExampleCluster() {
	x := []float32{
		0, 0,
		9, 9,
		0, 1,
		9, 8,
		1, 0.5,
	}
	r, err := kmeans.Cluster(x, 5, 2, kmeans.Options{K: 2, Algorithm: kmeans.AlgorithmBest, Silhouette: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("cluster of each row:", r.Assign)
	fmt.Println("sizes:", r.Sizes)
	fmt.Printf("centroids: %.2f\n", r.Centroids)
	fmt.Printf("inertia: %.2f, silhouette: %.2f\n", r.Inertia, r.Silhouette)
	// Output:
	// cluster of each row: [0 1 0 1 0]
	// sizes: [3 2]
	// centroids: [0.33 0.50 9.00 8.50]
	// inertia: 1.67, silhouette: 0.91
}

// One tree has a partition for every number of clusters.
func ExampleWard() {
	x := []float32{0, 1, 10, 12, 100} // five rows of one column
	tree, err := kmeans.Ward(x, 5, 1, nil)
	if err != nil {
		log.Fatal(err)
	}
	for k := 1; k <= 3; k++ {
		fmt.Printf("%d: %v inertia %.1f\n", k, tree.Cut(k), tree.Inertia(k))
	}
	// Output:
	// 1: [0 0 0 0 0] inertia 7219.2
	// 2: [0 0 0 0 1] inertia 112.8
	// 3: [0 0 1 1 2] inertia 2.5
}
