"""One model over several devices: tensor parallelism, each rank in a process of its own.

Every rank runs the same steps of `model.build`, in lockstep, and then rank 0 alone schedules and samples. It sends what
a step computes to the others as plain numbers (`inputs`), over one socket each (`wire`); they run the model's forward
pass and nothing else. That is simpler than a scheduler in every rank, which would have to see the same commands, clocks
and sampled tokens in the same order, and costs a few kilobytes a step.

`ranks` starts the others and watches them, and `rank` is what they run. `plan` says which part of which tensor a rank
holds, by transformers' own plans; `pieces` takes such parts; `group` is what the ranks' tensors meet in. Nothing that
goes from one rank to another is pickled.
"""
