package config

import (
	"fmt"
	"strings"
	"testing"
)

// mesh is a document of a mesh with n workloads behind n/10 services.
func mesh(n int) []byte {
	var b strings.Builder
	b.WriteString(head + "metadata: {namespace: shop}\nservices:\n")
	for i := range n / 10 {
		fmt.Fprintf(&b, "- {name: s%d, addresses: [10.%d.%d.%d], ports: [{port: 80, targetPort: 8080, appProtocol: http}], endpoints: [", i, 96+i>>16, i>>8&255, i&255)
		for j := range 10 {
			fmt.Fprintf(&b, "{workload: w%d},", i*10+j)
		}
		b.WriteString("]}\n")
	}
	b.WriteString("workloads:\n")
	for i := range n {
		fmt.Fprintf(&b, "- {name: w%d, address: 10.%d.%d.%d, serviceAccount: sa%d, labels: {app: s%d, version: v1}, locality: {region: r, zone: z%d}}\n", i, i>>16, i>>8&255, i&255, i/10, i/10, i%3)
	}
	return []byte(b.String())
}

func BenchmarkDecode(b *testing.B) {
	text := mesh(10_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if c, problems := Decode(File{"mesh.yaml", text}); c == nil || len(problems) > 0 {
			b.Fatal(lines(problems[:1]))
		}
	}
}

func BenchmarkSettle(b *testing.B) {
	c, _ := Decode(File{"mesh.yaml", mesh(10_000)})
	b.ReportAllocs()
	for b.Loop() {
		Settle(c, c)
	}
}

func BenchmarkReferences(b *testing.B) {
	c, _ := Decode(File{"mesh.yaml", mesh(10_000)})
	b.ReportAllocs()
	for b.Loop() {
		if problems := References(c); len(problems) > 0 {
			b.Fatal(lines(problems[:1]))
		}
	}
}
