import torch

torch.set_num_threads(1)  # of many small tensors: threads would cost more than they save
