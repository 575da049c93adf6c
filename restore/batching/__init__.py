"""Many pictures: side by side in one process, and shared among processes and machines.

`pipeline` lets reading, the network and writing overlap. `names` and `lazy` hold a million files in
little memory. `journal` is a folder through which workers share a list and which survives them:
`claims` says who does what, `members` who is alive, `logs` what became of each picture. `report`
writes that down for people and programs, and `launch` reads what torchrun says.
"""
