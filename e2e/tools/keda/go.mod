// KEDA's CustomResourceDefinitions, read from its pinned module (config/crd/bases); nothing of it is built yet.
module pagoda.dev/e2e/tools/keda

go 1.26.0

require github.com/kedacore/keda/v2 v2.21.0
